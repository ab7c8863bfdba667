//! The names of the resource types on the wire.

/// An entry of the VIP index; subscribed to with the wildcard.
pub const VIP: &str = "type.googleapis.com/isthmus.v1.Vip";
/// The active routes of a frontend; subscribed to by name.
pub const FRONTEND: &str = "type.googleapis.com/isthmus.v1.Frontend";
/// The endpoints of a backend; subscribed to by name.
pub const BACKEND: &str = "type.googleapis.com/isthmus.v1.Backend";
