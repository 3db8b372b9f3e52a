"""Who becomes champion, and the way back.

In: a challenger's version, and the rules of its recipe.
Out: a decision that is written once, the alias that follows it, and word to who asked for it.

    ledger       every decision about a model's champion, in one order
    settling     the alias follows the ledger
    pinned_sets  other evaluation sets, by name
    report       a decision as a page
    decision     judged, reported, written, completed
    promote      who becomes champion, and the way back
    notice       what a receiver is told of a new champion, and whether it is genuine
    webhooks     who is told of new champions
"""
