"""How good translations are, and whether that is enough.

In: translations and their references; rules.
Out: scores with their signatures; verdicts with their figures.

    evaluate      BLEU and chrF with their signatures
    significance  whether a difference is more than luck
    behaviour     what a score hides: lost numbers, loops, what a typing error does
    gate          rules in, verdicts with their figures out
"""
