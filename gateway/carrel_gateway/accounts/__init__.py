"""Accounts of people: registration, passwords, logins, sign-in by an OIDC provider, profiles, and their mail.

Keys, and who a caller is, are `identity`'s. An account stands above tenants; each membership is a user of a tenant.
"""
