//! Dispatchers, one module per router.
