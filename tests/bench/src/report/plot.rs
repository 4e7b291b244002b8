//! Latency against offered rate, as SVG. A writer of our own: a plot of a few lines needs no library.

use std::fmt::Write as _;

use super::latency_us;
use crate::fleet::Measured;

/// One target: `(offered a second, p50 µs, p99 µs)`.
pub struct Curve {
    /// In the legend.
    pub name: String,
    /// In the order of rates.
    pub points: Vec<(f64, f64, f64)>,
}

impl Curve {
    /// What was measured at an offered rate.
    pub fn point(rate: f64, one: &Measured) -> (f64, f64, f64) {
        (rate, latency_us(one, 0.5), latency_us(one, 0.99))
    }
}

const COLOURS: [&str; 7] = ["#1b6ca8", "#d1495b", "#2a9d5c", "#8a5fbf", "#c98a1b", "#3a3a3a", "#16a3a3"];
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 480.0;
/// Left, right, top, bottom of the area with lines.
const AREA: (f64, f64, f64, f64) = (70.0, 660.0, 40.0, 430.0);

/// p50 dashed, p99 solid; the latency's axis is logarithmic.
pub fn plot(title: &str, curves: &[Curve]) -> String {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let right = points().map(|point| point.0).fold(1.0, f64::max);
    let low = points().map(|point| point.1).filter(|us| *us > 0.0).fold(f64::MAX, f64::min).min(1e6);
    let high = points().map(|point| point.2).fold(low * 10.0, f64::max);
    let (low, high) = (low.log10().floor(), high.log10().ceil());
    let x = |rate: f64| AREA.0 + rate / right * (AREA.1 - AREA.0);
    let y = |us: f64| AREA.3 - (us.max(1e-3).log10() - low) / (high - low) * (AREA.3 - AREA.2);

    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{}\" y=\"22\" font-size=\"15\">{}</text>\n",
        AREA.0,
        escaped(title)
    );
    for power in low as i32..=high as i32 {
        let (us, height) = (10_f64.powi(power), y(10_f64.powi(power)));
        let label = if us >= 1e6 {
            format!("{} s", us / 1e6)
        } else if us >= 1e3 {
            format!("{} ms", us / 1e3)
        } else {
            format!("{us} µs")
        };
        let _ = writeln!(out, "<path d=\"M{} {height:.1}H{}\" stroke=\"#ddd\"/>", AREA.0, AREA.1);
        let _ =
            writeln!(out, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", AREA.0 - 6.0, height + 4.0);
    }
    for part in 0..=5 {
        let rate = right * f64::from(part) / 5.0;
        let _ =
            writeln!(out, "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{rate:.0}</text>", x(rate), AREA.3 + 18.0);
    }
    let _ = writeln!(
        out,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">offered, requests a second</text>",
        f64::midpoint(AREA.0, AREA.1),
        AREA.3 + 38.0
    );
    for (at, curve) in curves.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let mut line = |of: fn(&(f64, f64, f64)) -> f64, dash: &str| {
            let path: Vec<String> =
                curve.points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(of(point)))).collect();
            let _ = writeln!(
                out,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>",
                path.join(" ")
            );
        };
        line(|point| point.1, " stroke-dasharray=\"5 4\"");
        line(|point| point.2, "");
        let height = AREA.2 + 12.0 + 20.0 * at as f64;
        let _ = writeln!(out, "<path d=\"M{} {height}h24\" stroke=\"{colour}\" stroke-width=\"2\"/>", AREA.1 + 16.0);
        let _ = writeln!(out, "<text x=\"{}\" y=\"{}\">{}</text>", AREA.1 + 46.0, height + 4.0, escaped(&curve.name));
    }
    let _ = writeln!(
        out,
        "<text x=\"{}\" y=\"{}\" fill=\"#555\">p99 solid, p50 dashed</text>\n</svg>",
        AREA.1 + 16.0,
        AREA.3
    );
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_all_curves_within_its_area() {
        let curve = |name: &str, scale: f64| Curve {
            name: name.to_owned(),
            points: vec![(1e3, 80.0 * scale, 200.0 * scale), (1e4, 100.0 * scale, 9_000.0 * scale)],
        };
        let svg = plot("a < b", &[curve("one", 1.0), curve("other & more", 20.0)]);
        assert_eq!(svg.matches("<polyline").count(), 4);
        assert!(svg.contains("a &lt; b") && svg.contains("other &amp; more"));
        let pairs =
            svg.split("points=\"").skip(1).flat_map(|rest| rest.split('"').next().unwrap_or_default().split(' '));
        for pair in pairs {
            let (x, y) = pair.split_once(',').unwrap();
            let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
            assert!((AREA.0..=AREA.1).contains(&x) && (AREA.2..=AREA.3).contains(&y), "{pair}");
        }
    }
}
