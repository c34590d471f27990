//! The tenant's colour on our pages, made such that it can be read on a light and on a dark ground. Only colours that
//! were read as such get into the stylesheet.

const DEFAULT: Colour = Colour([0x0b, 0x6e, 0x7f]);
const LIGHT: Colour = Colour([0xff, 0xff, 0xff]);
const DARK: Colour = Colour([0x14, 0x17, 0x1a]);
/// Between text and ground, as WCAG asks of small text.
const CONTRAST: f64 = 4.5;
const STYLE: &str = include_str!("page.css");

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Colour([u8; 3]);

impl Colour {
    fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix('#')?.as_bytes();
        let (pairs, []) = hex.as_chunks::<2>() else { return None };
        let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Vec<u8> = pairs.iter().map(byte).collect::<Option<_>>()?;
        bytes.try_into().ok().map(Self)
    }

    fn text(self) -> String {
        let [r, g, b] = self.0;
        format!("#{r:02x}{g:02x}{b:02x}")
    }

    /// Relative luminance.
    fn light(self) -> f64 {
        let part = |byte: u8| match f64::from(byte) / 255.0 {
            low if low <= 0.040_45 => low / 12.92,
            high => ((high + 0.055) / 1.055).powf(2.4),
        };
        let [r, g, b] = self.0.map(part);
        0.2126 * r + 0.7152 * g + 0.0722 * b
    }

    fn contrast(self, other: Self) -> f64 {
        let (a, b) = (self.light(), other.light());
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    /// As much nearer to black or white as it must be to be read on `ground`.
    fn on(self, ground: Self) -> Self {
        let end = if ground.light() > 0.5 { 0.0 } else { 255.0 };
        let step = |share: u8| {
            let share = f64::from(share) / 20.0;
            let mixed = |byte: u8| f64::from(byte).mul_add(1.0 - share, end * share).round() as u8;
            Self(self.0.map(mixed))
        };
        (0..=20).map(step).find(|colour| colour.contrast(ground) >= CONTRAST).unwrap_or(self)
    }
}

/// The stylesheet. `colours`: as the tenant's settings hold them, the main one first.
pub(super) fn style(colours: &str) -> String {
    let main = colours.split(' ').next().and_then(Colour::parse).unwrap_or(DEFAULT);
    let (light, dark) = (main.on(LIGHT).text(), main.on(DARK).text());
    format!(
        ":root{{--brand:{light}}}\n@media(prefers-color-scheme:dark){{:root{{--brand:{dark}}}}}\n{STYLE}"
    )
}

/// Changes whenever the stylesheet does.
pub(super) fn style_name(colours: &str) -> String {
    blake3::hash(style(colours).as_bytes()).to_hex()[..12].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_colour_can_be_read_on_both_grounds() {
        for colour in ["#ffff00", "#000000", "#ffffff", "#0b6e7f", "#ff0000", "#7f7f7f"] {
            let colour = Colour::parse(colour).unwrap_or(DEFAULT);
            assert!(colour.on(LIGHT).contrast(LIGHT) >= CONTRAST, "{colour:?}");
            assert!(colour.on(DARK).contrast(DARK) >= CONTRAST, "{colour:?}");
        }
        assert_eq!(DEFAULT.on(LIGHT), DEFAULT, "what can be read stays as it is");
    }

    #[test]
    fn what_is_no_colour_does_not_get_into_the_stylesheet() {
        for text in ["", "red", "#fff", "#12345", "#1234567", "#00000g", "#0}b{x", "#éab"] {
            assert_eq!(Colour::parse(text), None, "{text}");
            assert_eq!(style(text), style(""), "{text}");
        }
        assert!(style("#112233 #ffffff").contains("--brand:#112233"));
    }

    #[test]
    fn the_stylesheet_loads_nothing_from_elsewhere() {
        for needle in ["http:", "https:", "@import", "url("] {
            assert!(!STYLE.contains(needle), "{needle}");
        }
    }
}
