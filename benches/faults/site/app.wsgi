"""An application that is there at once."""

from answers import serve

application = serve(__file__)
