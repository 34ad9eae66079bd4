//! Applications, one module each.
