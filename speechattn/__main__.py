"""`python -m speechattn` is the command `speechattn`."""

from speechattn.commands.main import main

if __name__ == "__main__":
    main()
