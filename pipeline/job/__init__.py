"""The whole way as one job that can be started again.

In: a `Recipe`.
Out: a registered model, and the result that scripts read.

    finish  what a finished training comes to, scored and registered
    data    what a job was begun with: other data are another job
    stored  what lies on a storage, and which jobs use it
    job     the whole way, from a recipe to a registered model
"""
