//! The colours of pictures, on a light page and on a dark one.

use plotters::style::RGBColor;

/// Behind everything.
pub(crate) const PAPER: RGBColor = RGBColor(255, 255, 255);
/// Titles, axes, and what is written beside them.
pub(crate) const INK: RGBColor = RGBColor(0, 0, 0);
/// What is small.
pub(crate) const SMALL: RGBColor = RGBColor(70, 70, 70);
pub(crate) const LIGHT_GRID: RGBColor = RGBColor(238, 238, 238);
pub(crate) const BOLD_GRID: RGBColor = RGBColor(215, 215, 215);

/// Told apart by people who see few colours, too (Okabe and Ito).
pub(crate) const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

/// What each colour is on a dark page: as far from the paper as it was from white.
const DARK: [(RGBColor, RGBColor); 12] = [
    (PAPER, RGBColor(13, 17, 23)),
    (INK, RGBColor(230, 237, 243)),
    (SMALL, RGBColor(157, 167, 179)),
    (LIGHT_GRID, RGBColor(28, 33, 40)),
    (BOLD_GRID, RGBColor(48, 54, 61)),
    (COLORS[0], RGBColor(88, 166, 224)),
    (COLORS[1], RGBColor(240, 136, 62)),
    (COLORS[2], RGBColor(63, 185, 143)),
    (COLORS[3], RGBColor(226, 155, 196)),
    (COLORS[4], RGBColor(240, 180, 60)),
    (COLORS[5], RGBColor(140, 210, 250)),
    (COLORS[6], RGBColor(170, 170, 170)),
];

/// A picture that follows the page it is on: where that is dark, each colour is another one. What a
/// style sheet says of a colour stands above what the element itself says.
pub(crate) fn for_both(svg: &str) -> String {
    let mut sheet = String::from("\n<style>@media (prefers-color-scheme: dark) {\n");
    for (light, dark) in DARK.map(|(light, dark)| (name(light), name(dark))) {
        sheet += &format!("[fill=\"{light}\"] {{ fill: {dark} }} ");
        sheet += &format!("[stroke=\"{light}\"] {{ stroke: {dark} }}\n");
    }
    sheet += "}</style>";
    match svg.find('>') {
        Some(end) => format!("{}{sheet}{}", &svg[..=end], &svg[end + 1..]),
        None => svg.to_owned(),
    }
}

/// As it stands in an SVG.
fn name(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Fails where something in a picture has no other colour on a dark page.
    pub(crate) fn assert_follows_the_page(svg: &str) {
        let (head, drawing) = svg.split_once("</style>").expect("it has a style sheet");
        assert!(head.starts_with("<svg") && head.contains("prefers-color-scheme: dark"));
        for attribute in ["fill=\"#", "stroke=\"#"] {
            for rest in drawing.split(attribute).skip(1) {
                let color = format!("#{}", &rest[..6]);
                assert!(
                    DARK.iter().any(|(light, _)| name(*light) == color),
                    "{color} is the same on a dark page"
                );
            }
        }
    }

    #[test]
    fn each_colour_has_its_own_on_a_dark_page() {
        for (number, (light, dark)) in DARK.iter().enumerate() {
            for (other, other_dark) in &DARK[number + 1..] {
                assert_ne!(name(*light), name(*other));
                assert_ne!(name(*dark), name(*other_dark));
            }
        }
        let svg = for_both("<svg width=\"3\"><rect fill=\"#000000\"/></svg>");
        assert!(
            svg.ends_with("</style><rect fill=\"#000000\"/></svg>"),
            "{svg}"
        );
        assert_follows_the_page(&svg);
    }

    #[test]
    fn what_is_read_can_be_read() {
        // The contrast of the guidelines for accessible pages (WCAG 2): 4.5 for text, 3 for curves.
        let luminance = |RGBColor(red, green, blue): RGBColor| {
            let linear = |part: u8| {
                let part = f64::from(part) / 255.0;
                if part <= 0.040_45 {
                    part / 12.92
                } else {
                    ((part + 0.055) / 1.055).powf(2.4)
                }
            };
            0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
        };
        let contrast = |one: RGBColor, other: RGBColor| {
            let (one, other) = (luminance(one) + 0.05, luminance(other) + 0.05);
            f64::max(one, other) / f64::min(one, other)
        };
        let (_, dark_paper) = DARK[0];
        for (light, dark) in &DARK[1..3] {
            assert!(contrast(*light, PAPER) > 4.5, "{light:?}");
            assert!(contrast(*dark, dark_paper) > 4.5, "{dark:?}");
        }
        // Those of the contenders.
        for (light, dark) in &DARK[5..8] {
            assert!(contrast(*light, PAPER) > 3.0, "{light:?}");
            assert!(contrast(*dark, dark_paper) > 3.0, "{dark:?}");
        }
    }
}
