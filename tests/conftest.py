"""Every test runs on the reactor that the program runs on: Twisted's asyncio reactor over uvloop."""

from __future__ import annotations

import asyncio

import uvloop
from twisted.internet import asyncioreactor

_loop = uvloop.new_event_loop()
asyncio.set_event_loop(_loop)
asyncioreactor.install(_loop)
