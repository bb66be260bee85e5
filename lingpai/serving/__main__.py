"""`python -m lingpai.serving`. The server is loaded late, so that Ctrl-C meanwhile and a missing package end in order."""

import sys

from lingpai.serving.options import read_options
from lingpai.terminal import explain_missing_package, prepare_streams, say_error, silence_stdout


def main() -> int:
    """Serve as the only argument says; the exit code."""
    prepare_streams()
    if len(sys.argv) != 2:
        say_error("This is the process that `lingpai serve` becomes; start that.")
        return 2
    options = read_options(sys.argv[1])
    try:
        from lingpai.serving.process import run  # noqa: PLC0415  see above

        return run(options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        silence_stdout()
        return 1
    except ImportError as error:
        say_error(explain_missing_package(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
