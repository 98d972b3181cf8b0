"""Files that people upload and files that their code makes: versions of names, kept in the object store."""
