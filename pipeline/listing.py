"""What a folder holds, while other processes make, fill, rename and delete folders in it.

pyarrow looks twice: it opens a folder, and where that fails it looks whether the folder is there.
One that is made between its two looks is FileNotFoundError, though a folder that is absent may be
asked for; so is one that is deleted while it is read (issue 14, part 2: 2,253 of 664,018 looks).
"""

from pyarrow.fs import FileInfo, FileSelector, FileSystem, PyFileSystem

LOOKS = 100
"""Each would have to meet another change of the folder itself: that many in a row are no chance."""


def list_folder(files: FileSystem, path: str, *, recursive: bool = False) -> list[FileInfo]:
    """Everything in a folder; nothing, where there is no such folder.

    Whatever reads a storage that another process writes to lists by this, and by nothing else.

    Args:
        recursive: also everything below.

    Raises:
        NotADirectoryError: the path is a file.
        OSError: the storage cannot be reached.
    """
    if isinstance(files, PyFileSystem):
        # What other processes wrote since is not in the listings that fsspec remembers.
        files.handler.fs.invalidate_cache()
    selector = FileSelector(path, recursive=recursive, allow_not_found=True)
    for _ in range(LOOKS - 1):
        try:
            return list(files.get_file_info(selector))
        except FileNotFoundError:  # it came or went while it was looked at
            continue
    return list(files.get_file_info(selector))
