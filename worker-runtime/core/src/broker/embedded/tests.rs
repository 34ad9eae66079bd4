//! Rules of the state, one by one, without tasks or time.
