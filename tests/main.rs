//! The product seen from outside: one test binary, a module for each feature that a user can see.
