"""An impression log whose true click and conversion probabilities are known.

Knows numpy and pyarrow. Does not know features, encoders, models or torch.

    population.py   who and what there is: users, items, and the latent traits that persist behind their ids
    traffic.py      who opens a page when, which items it shows and in which order
    behaviour.py    what follows: true pCTR and pCVR, labels, and what the log remembers about users and items
    log.py          the columns, and writing them

Assumptions, and why they are made:

* An item's quality is the sum of its category's, brand's, shop's and its own. It moves clicks and purchases
  alike, so clicked rows are a non-random sample in which conversion is more likely than over all impressions:
  the selection bias that entire-space training (arXiv 1804.07931, section 2.1) sets out to remove. Service
  quality of brand, shop and item moves purchases only, so clicks do not tell everything about conversions.
* A user's taste is that of one of a few segments, which age, gender, city and device give away in part, plus
  a deviation of their own, which the recent items give away in part. Readiness to click and to buy correlate.
* What resembles recently seen items is clicked and bought more; carts and purchases count more than views.
* Dear items (for their category) repel users by their thrift, more at the till than at the click.
* Position acts on the click and not on the purchase. Pages are put together by a production system of the
  usual kind (popular, to taste, similar to recent, newly arrived), so exposure is not random either.
* Users and items keep arriving; their ids are unknown to whoever trained on the days before.
* Histories and counters are as fresh as a feature pipeline makes them: histories hourly, counters daily.
* Given a row, that is its features and what persists behind its ids, click and conversion are independent draws
  from the true pCTR and pCVR: no hidden confounder and no other noise. `would_convert` is the conversion that
  a click would have brought, so conversion = click * would_convert.

Rates are set by two intercepts, solved on a pilot sample: a click for 4 % of impressions, a conversion for
8 % of clicks. As histories grow with what users then do, the realised rates drift from these by up to a fifth.
"""

from training.simulator.log import LOG, TRUTH, simulate

__all__ = ["LOG", "TRUTH", "simulate"]
