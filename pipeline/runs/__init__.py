"""A run as people see it.

In: a recipe, and what the job came to.
Out: one MLflow run with its parameters, pictures and samples; a line that says where training is.

    for_people  pictures and pages: none of them is worth a job
    pictures    curves and attention maps
    track       one MLflow run per job: parameters, metrics, artifacts
    progress    the line that says where training is
"""
