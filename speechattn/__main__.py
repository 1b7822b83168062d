"""Run the `speechattn` command by `python -m speechattn`."""

from speechattn.commands.main import main

if __name__ == "__main__":
    main()
