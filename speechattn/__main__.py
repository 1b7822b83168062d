"""`python -m speechattn` is the command `speechattn`."""

from speechattn.cli import main

if __name__ == "__main__":
    main()
