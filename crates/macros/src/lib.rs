//! The attributes of Phalanx: #[action], #[task], #[remote], #[input], #[output].
