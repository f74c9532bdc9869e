//! Reads the files of `proto-spec/vectors`. The fuzz replay includes this file too.

use std::path::Path;

use serde::Deserialize;

/// One vector; which keys are there depends on its folder and kind. See `proto-spec/vectors/README.md`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) spec: Vec<String>,
    pub(crate) note: Option<String>,
    pub(crate) hex: Option<String>,
    pub(crate) text: Option<String>,
    pub(crate) canonical: Option<String>,
    pub(crate) canonical_text: Option<String>,
    pub(crate) decoded: Option<toml::Value>,
    pub(crate) error: Option<String>,
    pub(crate) refuse: Option<u16>,
    pub(crate) close: Option<String>,
    pub(crate) reset: Option<String>,
    pub(crate) because: Option<String>,
}

impl Vector {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        bytes_of(self.hex.as_deref(), self.text.as_deref()).unwrap_or_else(|| panic!("{} has no bytes", self.name))
    }

    /// What encoding the value gives.
    #[allow(dead_code)]
    pub(crate) fn canonical_bytes(&self) -> Vec<u8> {
        let canonical = bytes_of(self.canonical.as_deref(), self.canonical_text.as_deref());
        canonical.unwrap_or_else(|| self.bytes())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    vector: Vec<Vector>,
}

/// Every vector in `folder` of `proto-spec/vectors`, `valid` or `invalid`.
pub(crate) fn load(folder: &str) -> Vec<Vector> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().map(|above| above.join("proto-spec/vectors")).find(|root| root.is_dir()).unwrap();
    let mut files: Vec<_> = std::fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path: &std::path::PathBuf| {
        let file: File = toml::from_str(&std::fs::read_to_string(path).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        file.vector
    };
    files.iter().flat_map(read).collect()
}

fn bytes_of(hex: Option<&str>, text: Option<&str>) -> Option<Vec<u8>> {
    assert!(hex.is_none() || text.is_none(), "the same bytes stand there twice");
    hex.map(parse_hex).or_else(|| text.map(|text| text.as_bytes().to_vec()))
}

/// Bytes of commented hex: `#` starts a comment, `xx*n` is the byte `xx`, `n` times.
pub(crate) fn parse_hex(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for token in text.lines().flat_map(|line| line.split('#').next().unwrap().split_whitespace()) {
        let (byte, count) = token.split_once('*').unwrap_or((token, "1"));
        assert_eq!(byte.len(), 2, "{token:?} is not a byte in hex");
        let byte = u8::from_str_radix(byte, 16).unwrap();
        bytes.extend(std::iter::repeat_n(byte, count.parse().unwrap()));
    }
    bytes
}
