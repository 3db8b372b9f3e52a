"""A data set to a data set, by many translators at once.

In: a MODEL and a location.
Out: a folder of Parquet files with every row, and its translation or why there is none.

    parts     the output of a long translation: parts, whole or absent
    rows      all rows of a span, each with its translation or why there is none
    progress  the line that says how far a data set's translation is
    dataset   a data set to a data set through Ray Data
"""
