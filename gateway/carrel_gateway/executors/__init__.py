"""Where kernel hosts run: `local` as child processes, `kubernetes` as pods; above this package nothing differs."""
