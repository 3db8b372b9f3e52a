"""From rows to a corpus on storage, in pieces that can be read in any order.

In: what a recipe says of its data.
Out: a `Corpus`: the pairs that are used, those that are not counted by reason, and a digest;
    several of them as a `Mixture`.

    found_data     a recipe's data, looked for once; and what they were, when they are away
    cleaning       which pairs are used; the others are counted by reason
    pairs          a small data set's pairs, in this process alone
    stretches      the cleaned pairs as they were read, until their number is known
    readings       what was read of each part, kept until the corpus is whole
    duplicates     equal pairs, found within bounded memory
    pieces         pairs → Parquet files of equal pieces, and their digest
    corpus         the cleaned pairs on storage, in pieces that can be read in any order
    mixture        several corpora as one, each used by its weight
"""
