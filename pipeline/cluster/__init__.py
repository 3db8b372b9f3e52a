"""Ray: started or joined, and given jobs.

In: RAY_ADDRESS, or the address of a job server; a working tree, settings and secrets.
Out: the nodes there are; a job that runs elsewhere, followed and stopped.

    start       starting or joining Ray, and how large it is
    nodes       every node, and whether it sees what this process sees
    checkout    which commit the code is of
    sealed      secrets on their way to a job
    parcel      what goes to a cluster with a job
    job_server  jobs on a cluster: given, followed, stopped
"""
