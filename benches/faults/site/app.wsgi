"""An application that is there at once."""

import feature
from answers import serve

application = serve(__file__, feature.__file__)
