//! Texts of identities: pins, tunnel addresses, identity templates.

use adit::id::{SpkiPin, TunnelAddress};
use adit::policy::IdentityTemplate;

/// A pin has one text. The other two print to what parses to the same.
pub fn spki_pin(data: &[u8]) {
    if let Ok(key) = <[u8; 32]>::try_from(data) {
        assert_eq!(SpkiPin(key).to_string().parse(), Ok(SpkiPin(key)));
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(pin) = text.parse::<SpkiPin>() {
        assert_eq!(pin.to_string(), text);
    }
    if let Ok(address) = text.parse::<TunnelAddress>() {
        assert_eq!(address.to_string().parse(), Ok(address));
    }
    if let Ok(template) = text.parse::<IdentityTemplate>() {
        assert_eq!(template.to_string().parse(), Ok(template));
    }
}
