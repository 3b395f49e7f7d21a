#!/usr/bin/env python3
"""A control plane in small: puts two tenants on a tier, lets one sell what it does not need to the
other, and follows the trade as the daemon tells it.

    cargo run --release -- run --host dry-run --socket /tmp/vendue.sock --data-dir /tmp/vendue &
    pip install ./wire/python
    python3 wire/python/example.py unix:/tmp/vendue.sock
"""

import sys
import uuid

import vendue
from vendue import Resource, Side


def tenant(client, name, book, funds_micro):
    """An account with one instance of a VRU in the book's tier: both numbers."""
    # It trades with every group of accounts.
    everyone = (1 << 64) - 1
    account = client.call(
        vendue.CreateAccount(name=name, sells_to=everyone, buys_from=everyone)).value
    client.call(vendue.Deposit(account=account, amount_micro=funds_micro))
    baseline = [0] * len(Resource)
    baseline[book.resource] = 1
    instance = client.call(vendue.CreateInstance(
        name=name, account=account, tier=book.tier, baseline_vru=baseline)).value
    return account, instance


def main(endpoint):
    with vendue.Client(endpoint) as client:
        book = next(book for book in client.ask(vendue.QueryBooks())
                    if book.resource == Resource.CPU)
        print(f"book {book.book}: {book.resource.name} of tier {book.tier_name!r}")

        run = uuid.uuid4().hex[:8]
        (giver, idle), (taker, busy) = (
            tenant(client, f"{name}-{run}", book, 10**9) for name in ("giver", "taker"))
        client.call(vendue.GrantCredits(
            instance=idle, resource=book.resource, amount_millicredits=600_000))

        # From the next record of the journal on: all that happens below will be told.
        notices = client.subscribe(timeout=5)

        price = 10
        asked = client.call(vendue.NewOrder(
            instance=idle, book=book.book, side=Side.SELL, price_ticks=price, quantity=600))
        print(f"{idle} offers 600 credits at {price}: handle {asked.handle:#x}")
        client.call(vendue.NewOrder(
            instance=busy, book=book.book, side=Side.BUY, price_ticks=price, quantity=400,
            time_in_force=vendue.TimeInForce.IOC))

        told = 0
        for notice in notices:
            if isinstance(notice, vendue.Swapped) and notice.buyer == busy:
                told += notice.quantity
                print(f"trade {notice.trade}: {notice.quantity} credits at {notice.price_ticks}")
            if isinstance(notice, vendue.FundsChanged) and notice.account in (giver, taker):
                print(f"account {notice.account} has {notice.balance_micro} micro-units")
            if isinstance(notice, vendue.CreditsChanged) and notice.instance == busy and told:
                print(f"instance {busy} has {notice.balance_millicredits / 1000:g} credits")
                break

        client.call(vendue.Cancel(handle=asked.handle))
        for instance in (idle, busy):
            client.call(vendue.RemoveInstance(instance=instance))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} unix:PATH | tcp:ADDRESS:PORT | tls:DIR@HOST:PORT")
    try:
        main(sys.argv[1])
    except (vendue.VendueError, OSError) as error:
        sys.exit(f"{sys.argv[0]}: {error}")
