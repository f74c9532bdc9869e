//! The values of the directory in etcd: JSON, so that an operator reads them with `etcdctl`. spec: FL-6 to FL-8

use serde::{Deserialize, Serialize};

use crate::id::{Claim, HostPort, InstanceId, Issued, Place, ServiceName, SpkiPin};

/// The largest value that is written or read, in bytes. spec: FL-6
pub const MAX_VALUE_BYTES: usize = 32 << 10;
/// The most addresses in each list of a responder. spec: FL-7
pub const MAX_ADDRESSES: usize = 16;
/// The longest name of a region or text of a version, in bytes. spec: FL-7
pub const MAX_TEXT_BYTES: usize = 128;
/// The most services of one node. spec: FL-8
const MAX_DOWN: usize = 256;

/// The version of the records that are written here.
const VERSION: u32 = 1;

/// A responder as it tells its siblings. spec: FL-7
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponderRecord {
    /// Higher than those of its former starts.
    pub epoch: u64,
    /// What it runs.
    pub version: String,
    /// Where siblings reach it, over UDP.
    pub siblings: Vec<HostPort>,
    /// Where initiators reach it.
    pub initiators: Vec<HostPort>,
    /// Where it stands.
    pub region: Option<String>,
    /// Its share of the work, at least 1.
    pub weight: u16,
    /// It is leaving.
    pub draining: bool,
}

/// A tunnel as its responder tells its siblings. spec: FL-8
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelRecord {
    /// Whose it is, and which of the node's.
    pub place: Place,
    /// What the node's certificate proved, if it showed one.
    pub key: Option<SpkiPin>,
    /// What that certificate has over others, if it proves the claim by its names.
    pub issued: Option<Certified>,
    /// It owes a sign of life. spec: CT-42
    pub suspect: bool,
    /// Services that are down, as the node says.
    pub down: Vec<ServiceName>,
    /// All that it exports of HTTP are. spec: CT-61
    pub http_down: bool,
}

/// What is compared of two certificates of one node: who signed it, in 16 bytes, and for when. spec: HS-14
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Certified {
    /// The first bytes of [`Issued::authority`].
    pub authority: [u8; 16],
    /// Valid from and until, seconds since 1970.
    pub validity: (i64, i64),
}

impl From<Issued> for Certified {
    fn from(Issued { authority, validity }: Issued) -> Self {
        let (first, _) = authority.split_at(16);
        let mut authority = [0; 16];
        authority.copy_from_slice(first);
        Self { authority, validity }
    }
}

impl Certified {
    /// Whether this is a later certificate of the same authority.
    pub fn renews(&self, older: &Self) -> bool {
        self.authority == older.authority && self.validity > older.validity
    }
}

/// Why a value is no record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// More bytes than any record has.
    #[error("has {0} bytes; expected at most {MAX_VALUE_BYTES}")]
    TooLong(usize),
    /// No JSON, or not with the members of this record.
    #[error("is not the expected JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A version that this program does not know.
    #[error("is of version {0}; expected {VERSION}")]
    Version(u32),
    /// A member holds something else than it should.
    #[error("has a {member} that {problem}")]
    Member {
        /// Which one.
        member: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

#[derive(Serialize, Deserialize)]
struct ResponderWire {
    v: u32,
    epoch: u64,
    version: String,
    siblings: Vec<String>,
    initiators: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    weight: u16,
    draining: bool,
}

#[derive(Serialize, Deserialize)]
struct TunnelWire {
    v: u32,
    tenant: String,
    node: String,
    cluster: String,
    instance: String,
    slot: u32,
    generation: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issued: Option<IssuedWire>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    suspect: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    down: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    http_down: bool,
}

#[derive(Serialize, Deserialize)]
struct IssuedWire {
    by: String,
    from: i64,
    until: i64,
}

impl ResponderRecord {
    /// The value.
    pub fn encode(&self) -> Vec<u8> {
        let texts = |list: &[HostPort]| list.iter().map(ToString::to_string).collect();
        let wire = ResponderWire {
            v: VERSION,
            epoch: self.epoch,
            version: self.version.clone(),
            siblings: texts(&self.siblings),
            initiators: texts(&self.initiators),
            region: self.region.clone(),
            weight: self.weight,
            draining: self.draining,
        };
        json(&wire)
    }

    /// Reads a value.
    ///
    /// # Errors
    /// [`RecordError`] says what was expected.
    pub fn decode(value: &[u8]) -> Result<Self, RecordError> {
        let wire: ResponderWire = read(value)?;
        version(wire.v)?;
        if wire.weight == 0 {
            return Err(member("weight")("is 0; expected 1 to 65535"));
        }
        Ok(Self {
            epoch: wire.epoch,
            version: text("version", wire.version)?,
            siblings: addresses("siblings", &wire.siblings)?,
            initiators: addresses("initiators", &wire.initiators)?,
            region: wire.region.map(|region| text("region", region)).transpose()?,
            weight: wire.weight,
            draining: wire.draining,
        })
    }
}

impl TunnelRecord {
    /// The value.
    pub fn encode(&self) -> Vec<u8> {
        let Place { claim: Claim { tenant, cluster, node }, instance, slot, generation } = &self.place;
        let wire = TunnelWire {
            v: VERSION,
            tenant: tenant.to_string(),
            node: node.to_string(),
            cluster: cluster.to_string(),
            instance: instance.to_string(),
            slot: *slot,
            generation: *generation,
            key: self.key.map(|key| key.to_string()),
            issued: self.issued.map(|Certified { authority, validity: (from, until) }| IssuedWire {
                by: format!("{:032x}", u128::from_be_bytes(authority)),
                from,
                until,
            }),
            suspect: self.suspect,
            down: self.down.iter().take(MAX_DOWN).map(ToString::to_string).collect(),
            http_down: self.http_down,
        };
        json(&wire)
    }

    /// Reads a value.
    ///
    /// # Errors
    /// [`RecordError`] says what was expected.
    pub fn decode(value: &[u8]) -> Result<Self, RecordError> {
        let wire: TunnelWire = read(value)?;
        version(wire.v)?;
        let claim = Claim {
            tenant: wire.tenant.parse().map_err(member("tenant"))?,
            cluster: wire.cluster.parse().map_err(member("cluster"))?,
            node: wire.node.parse().map_err(member("node"))?,
        };
        if wire.down.len() > MAX_DOWN {
            return Err(member("down")("names more services than a node has"));
        }
        let down = wire.down.iter().map(|name| name.parse().map_err(member("down")));
        let instance = digits(&wire.instance).map(InstanceId);
        let instance = instance.ok_or_else(|| member("instance")("is not 32 hexadecimal digits"))?;
        let certified = |IssuedWire { by, from, until }: IssuedWire| {
            let authority = digits(&by).ok_or_else(|| member("issued")("is not by 32 hexadecimal digits"))?;
            Ok::<_, RecordError>(Certified { authority, validity: (from, until) })
        };
        Ok(Self {
            place: Place { claim, instance, slot: wire.slot, generation: wire.generation },
            key: wire.key.map(|key| key.parse().map_err(member("key"))).transpose()?,
            issued: wire.issued.map(certified).transpose()?,
            suspect: wire.suspect,
            down: down.collect::<Result<_, _>>()?,
            http_down: wire.http_down,
        })
    }
}

fn json(wire: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(wire).expect("texts, numbers and lists have a JSON form")
}

fn read<'a, T: Deserialize<'a>>(value: &'a [u8]) -> Result<T, RecordError> {
    if value.len() > MAX_VALUE_BYTES {
        return Err(RecordError::TooLong(value.len()));
    }
    Ok(serde_json::from_slice(value)?)
}

fn version(found: u32) -> Result<(), RecordError> {
    if found == VERSION { Ok(()) } else { Err(RecordError::Version(found)) }
}

fn member<E: ToString>(member: &'static str) -> impl Fn(E) -> RecordError {
    move |problem| RecordError::Member { member, problem: problem.to_string() }
}

fn text(name: &'static str, text: String) -> Result<String, RecordError> {
    let is_fine = text.len() <= MAX_TEXT_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if is_fine { Ok(text) } else { Err(member(name)("is longer than 128 bytes, or not printable ASCII")) }
}

fn addresses(name: &'static str, list: &[String]) -> Result<Vec<HostPort>, RecordError> {
    if list.len() > MAX_ADDRESSES {
        return Err(member(name)("has more than 16 addresses"));
    }
    list.iter().map(|text| text.parse().map_err(member(name))).collect()
}

fn digits(text: &str) -> Option<[u8; 16]> {
    let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten()?;
    Some(number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TUNNEL: &str = r#"{"v":1,"tenant":"acme","node":"edge-17","cluster":"stores-eu","instance":"000102030405060708090a0b0c0d0e0f","slot":2,"generation":5,"down":["api"]}"#;
    const RESPONDER: &str = r#"{"v":1,"epoch":7,"version":"adit 0.1.0","siblings":["cloud-1:7844"],"initiators":["cloud-1.example.com:7843","[::1]:7843"],"region":"eu","weight":100,"draining":false}"#;

    #[test]
    fn the_examples_of_the_spec_are_read_and_written_as_they_stand() {
        // spec: FL-7, FL-8
        let spec = include_str!("../../../proto-spec/9-fleet.md");
        assert!(spec.contains(TUNNEL) && spec.contains(RESPONDER), "the examples differ from the spec");
        let tunnel = TunnelRecord::decode(TUNNEL.as_bytes()).unwrap();
        assert_eq!(tunnel.place.claim.node.as_str(), "edge-17");
        assert_eq!(String::from_utf8(tunnel.encode()).unwrap(), TUNNEL);
        let responder = ResponderRecord::decode(RESPONDER.as_bytes()).unwrap();
        assert_eq!(responder.initiators.len(), 2);
        assert_eq!(String::from_utf8(responder.encode()).unwrap(), RESPONDER);
    }

    #[test]
    fn what_a_certificate_has_over_others_and_a_doubt_are_told_and_may_be_missing() {
        // spec: FL-8
        let mut record = TunnelRecord::decode(TUNNEL.as_bytes()).unwrap();
        assert_eq!((record.issued, record.suspect), (None, false));
        record.issued = Some(Certified { authority: [7; 16], validity: (-1, 1 << 40) });
        record.suspect = true;
        record.http_down = true;
        let text = String::from_utf8(record.encode()).unwrap();
        assert!(text.contains(
            r#""issued":{"by":"07070707070707070707070707070707","from":-1,"until":1099511627776},"suspect":true,"down":["api"],"http_down":true"#
        ));
        assert_eq!(TunnelRecord::decode(text.as_bytes()).unwrap(), record);
        let short = TunnelRecord::decode(text.replace("0707070707", "07").as_bytes()).unwrap_err();
        assert!(
            short.to_string().contains("an issued that is not by 32 hexadecimal digits")
                || short.to_string().contains("issued")
        );
    }

    #[test]
    fn members_that_are_not_known_are_skipped_and_each_mistake_is_named() {
        // spec: FL-6
        assert!(TunnelRecord::decode(TUNNEL.replace("\"slot\"", "\"later\":{},\"slot\"").as_bytes()).is_ok());
        let said = |from: &str, to: &str| {
            assert!(TUNNEL.contains(from), "{from}");
            TunnelRecord::decode(TUNNEL.replacen(from, to, 1).as_bytes()).unwrap_err().to_string()
        };
        assert!(said("\"v\":1", "\"v\":2").contains("version 2; expected 1"));
        assert!(said("edge-17", "edge 17").contains("a node that has the byte 0x20"));
        assert!(said("0001", "000").contains("an instance that is not 32") || said("0001", "000").contains("instance"));
        assert!(said("\"slot\":2", "\"slot\":-2").contains("JSON"));
        assert!(said("\"slot\":2,", "").contains("missing field `slot`"));
        assert!(said("\"slot\":2,", "\"slot\":2,\"slot\":2,").contains("duplicate field"));
        let long = TUNNEL.replace("acme", &"a".repeat(MAX_VALUE_BYTES));
        assert!(matches!(TunnelRecord::decode(long.as_bytes()), Err(RecordError::TooLong(_))));
        assert!(ResponderRecord::decode(RESPONDER.replace("100", "0").as_bytes()).is_err());
        assert!(ResponderRecord::decode(RESPONDER.replace(":7844", "").as_bytes()).is_err());
    }
}
