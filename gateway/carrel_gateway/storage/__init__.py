"""Where state is kept: the database, the bus, the object store. The only package that opens any of them."""
