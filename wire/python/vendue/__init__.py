"""A client for vendued, the auction room of one host.

    import vendue

    with vendue.Client("unix:/run/vendued/vendued.sock") as client:
        for book in client.ask(vendue.QueryBooks()):
            print(book.tier_name, book.resource, book.best_bid_ticks, book.best_ask_ticks)

`Client` connects; every message of the protocol is a class of its name (`NewOrder`, `QueryBooks`,
`Filled`...), every list of codes an enumeration (`Side`, `Reject`...).
"""

from .client import (
    BadFrame,
    Client,
    ConnectionEnded,
    Frame,
    Gap,
    NotAnswered,
    NotDone,
    VendueError,
)
from .messages import *  # noqa: F403
