"""What is asked for, checked before anything heavy is loaded.

In: a recipe's file and its overrides; the words of a command line.
Out: a `Recipe`, a `Placement` of its workers; or a `RequestError` that says what would be valid.

    errors       what a user can get wrong, said in words
    rules        what a version must show to become champion
    data         which sentence pairs a job reads
    decoding     how translations are asked for
    recipe       everything that defines a job: sections, defaults, checks
    recipe_file  reading a recipe and its overrides; mistakes in words
    model_uri    what MODEL may be on a command line
    placement    what a job may ask of a cluster
"""
