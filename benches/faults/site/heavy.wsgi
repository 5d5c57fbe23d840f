"""An application whose import takes a second, half of it at work."""

import time

from answers import serve

_half = time.monotonic() + 0.5
while time.monotonic() < _half:
    pass
time.sleep(0.5)

application = serve(__file__)
