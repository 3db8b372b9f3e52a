"""The corpus inside this package: English and German, made by a grammar.

In: a split's name.
Out: its sentence pairs, the same ones each time.

    lexicon  the words of the embedded corpus
    grammar  the embedded corpus: a generator of English-German sentence pairs
"""
