"""What a cache may lose, and the price. Read rounding, prefix, rules, budgets, curves, passkeys, variants, price.

Tokens of a prefix are evicted and its numbers rounded; the tokens after it are scored, all layers computed anew.
"""

from statesize.reduction.cache.price import cache
from statesize.reduction.cache.result import CachePrices

__all__ = ["CachePrices", "cache"]
