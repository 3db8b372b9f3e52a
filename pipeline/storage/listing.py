"""What a folder holds, while other processes make, fill, rename and delete folders in it.

pyarrow looks twice: it opens a folder, and where that fails it looks whether the folder is there.
One that is made between its two looks is FileNotFoundError, though a folder that is absent may be
asked for; so is one that is deleted while it is read (issue 14, part 2: 2,253 of 664,018 looks).
And it looks at each entry once it has read their names, and leaves out what is gone by then: of
checkpoints that replace one another it may find none, though there always is one.
"""

import os
import uuid

from pyarrow.fs import FileInfo, FileSelector, FileSystem, LocalFileSystem, PyFileSystem

LOOKS = 100
"""Each would have to meet another change of the folder itself: that many in a row are no chance."""


def list_folder(files: FileSystem, path: str, *, recursive: bool = False) -> list[FileInfo]:
    """What was in a folder at one moment; nothing, where there was no such folder.

    What is gone when it is looked at is of type NotFound. Only where all is looked through, or the
    storage is no local one, is it left out.

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
    for _ in range(LOOKS - 1):
        try:
            return _look(files, path, recursive)
        except FileNotFoundError:  # it came or went while it was looked at
            continue
    return _look(files, path, recursive)


def _look(files: FileSystem, path: str, recursive: bool) -> list[FileInfo]:
    """Raises FileNotFoundError when the folder came or went meanwhile."""
    if recursive or not isinstance(files, LocalFileSystem):
        return list(
            files.get_file_info(FileSelector(path, allow_not_found=True, recursive=recursive))
        )
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return []
    return list(files.get_file_info([f"{path.rstrip('/')}/{name}" for name in names]))


def write_whole(files: FileSystem, path: str, content: bytes) -> None:
    """Write a file that others see whole or not at all; its folder is made.

    Raises:
        OSError: it cannot be written.
    """
    folder, _, name = path.rpartition("/")
    files.create_dir(folder, recursive=True)
    # Of its own: another start may be writing the same file.
    temporary = f"{folder}/.writing-{uuid.uuid4().hex}-{name}"
    with files.open_output_stream(temporary) as file:
        file.write(content)
    files.move(temporary, path)
