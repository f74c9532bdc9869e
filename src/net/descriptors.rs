//! File descriptors: as many as the system gives, and how many of them listeners for clients may use.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What stays for tunnels, the admin listener, files and resolvers at least, where there are enough for that.
const LEAST_RESERVE: u64 = 96;
/// The part of all descriptors that stays for them otherwise.
const RESERVE: u64 = 4;
/// What is taken for the number of descriptors where the system names none.
const UNLIMITED: u64 = 1 << 20;

/// Raises the limit of this process to what it may have at most (the soft limit of `RLIMIT_NOFILE` to the hard one), and
/// returns the limit that holds then. The usual soft limit of 1,024 is for programs that use `select`.
///
/// # Errors
/// The system refuses: the limit is as it was.
pub fn raise_descriptors() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    }
    Ok(descriptors())
}

/// How many descriptors this process may have open.
pub fn descriptors() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(UNLIMITED)
}

/// How many of `limit` descriptors connections of clients may use. The rest is for tunnels, operators and files, so that no
/// number of clients can take them.
pub fn for_clients(limit: u64) -> usize {
    let reserve = (limit / RESERVE).max(LEAST_RESERVE).min(limit / 2);
    usize::try_from(limit - reserve).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_stays_whatever_the_limit() {
        for (limit, clients) in [(64, 32), (256, 160), (1024, 768), (1 << 20, 786_432)] {
            assert_eq!(for_clients(limit), clients, "of {limit}");
        }
    }

    #[test]
    fn the_limit_rises_to_what_the_system_allows() {
        let raised = raise_descriptors().unwrap();
        assert_eq!(Some(raised), getrlimit(Resource::Nofile).maximum.or(Some(UNLIMITED)));
        assert_eq!(raise_descriptors().unwrap(), raised, "once more changes nothing");
    }
}
