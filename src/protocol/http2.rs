//! What the headers of HTTP/2 frames tell somebody who sees the bytes pass and takes no part: which frames, and whether
//! too many of them are nothing but work. RFC 9113 section 4.1

mod rate;
mod scan;
mod unserved;

pub use self::rate::{Flood, FrameRate};
pub use self::scan::{FrameHeader, FrameScan};
pub use self::unserved::{Unheard, Unserved};
