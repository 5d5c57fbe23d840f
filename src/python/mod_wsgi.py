"""The part of the module `mod_wsgi` that is written in Python.

Executed once in each interpreter, in the namespace of that module.
"""


class RequestTimeout(BaseException):
    """Raised in a request that takes longer than its process group allows."""


class FileWrapper:
    """What `wsgi.file_wrapper` names: an iterable over a file-like object."""

    __slots__ = ("_FileWrapper__blksize", "_FileWrapper__closed", "_FileWrapper__filelike")

    def __init__(self, filelike, blksize=8192, /):
        if not isinstance(blksize, int):
            raise TypeError(f"block size must be int, not {type(blksize).__name__}")
        if blksize < 0:
            raise ValueError("block size must not be negative")
        self.__filelike = filelike
        self.__blksize = blksize
        self.__closed = False

    @property
    def filelike(self):
        """The object whose contents are sent."""
        return self.__filelike

    @property
    def blksize(self):
        """How much is read at a time."""
        return self.__blksize

    def __iter__(self):
        return self

    def __next__(self):
        if self.__closed:
            raise ValueError("file wrapper is closed")
        block = self.__filelike.read(self.__blksize)
        if not isinstance(block, bytes):
            raise TypeError(f"file-like object must give bytes, not {type(block).__name__}")
        if not block:
            raise StopIteration
        return block

    def close(self):
        """Close the file-like object, if it can be closed."""
        self.__closed = True
        try:
            close = getattr(self.__filelike, "close", None)
            if close is not None:
                close()
        except Exception:  # noqa: S110 - the answer is complete; nobody is left to tell
            pass
