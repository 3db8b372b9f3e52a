"""Finished models: where they come from, what they can do, other forms of them.

In: a MODEL, as the command line names it.
Out: its lineage; scores; translations; an export.

    lineage  from a version to its data, and from data to versions
    use      a finished model at work: score it, translate with it
    export   a model in another form, checked before it is handed over
"""
