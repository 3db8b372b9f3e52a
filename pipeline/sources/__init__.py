"""A data set, wherever it is and whatever it is made of, as rows.

In: a location of the recipe: a hub name, files, a folder, a stream.
Out: a `Source`: its files, what they are, and their rows as {source, target, problem}.

    embedded        the corpus inside the package: a lexicon, and a grammar that speaks with it
    hub             a hub dataset: its commit, its splits, its README's settings
    lines           text files, unpacked, line by line within bounded memory
    whole_rows      all columns of a row: their types, and their values in these types
    rows            any reader's columns → source, target, and what is wrong with them
    text_readers    JSON lines, CSV and TSV, pairs of text files → tables of rows
    binary_readers  Parquet and Arrow → tables of rows
    formats         the formats of files, each by its suffix, and how it is read
    files           which files a location means: hub names, folders, globs, paths
    shards          whatever else `datasets` can stream, shard by shard
    source          all of a split as one Ray Dataset, in order
    survey          a data set looked through: its columns' types, and how many rows
"""
