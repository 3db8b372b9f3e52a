"""From rows to a corpus on storage, in pieces that can be read in any order.

In: a `Source`.
Out: a `Corpus`: the pairs that are used, those that are not counted by reason, and a digest;
    several of them as a `Mixture`.

    known_sources  what a source was when it was prepared, for when it cannot be reached
    cleaning       which pairs are used; the others are counted by reason
    stretches      the cleaned pairs as they were read, until their number is known
    readings       what was read of each part, kept until the corpus is whole
    duplicates     equal pairs, found within bounded memory
    pieces         pairs → Parquet files of equal pieces, and their digest
    corpus         the cleaned pairs on storage, in pieces that can be read in any order
    mixture        several corpora as one, each used by its weight
"""
