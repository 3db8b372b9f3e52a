"""What is wrong with a cluster, its storage and its tracking server.

In: addresses, and a recipe if there is one.
Out: findings in words, each with a way on.

    server  whether a tracking server does what a job needs
    node    what a node says of itself
    checks  what was found, judged
    doctor  what is wrong with a cluster, its storage and its tracking server
"""
