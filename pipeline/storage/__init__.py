"""Places for files, on a disk or far away.

In: a path or a URL.
Out: its file system; listings of one moment; folders that are whole or absent; a job's fence.

    remote       files elsewhere; a lost connection is said in words
    filesystems  the file system of any place, local or a URL
    listing      what a folder holds, and files written whole, while others do the same
    folders      folders on storage that are whole or absent
    fence        which of a job's starts may write to its storage
"""
