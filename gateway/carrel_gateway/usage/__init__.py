"""What was used, by whom, when and at what price: a ledger of model calls, and its sums."""
