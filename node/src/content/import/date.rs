//! Dates as people write them at the head of a file. No clock, and no time zones but offsets.

const DAY_MS: i64 = 86_400_000;

/// Unix milliseconds of `2025-01-31`, with or without `T12:00`, `12:00:30`, a fraction, and `Z`, `+02:00` or
/// `-0700`; UTC without an offset. None for what is no date.
pub fn parse(text: &str) -> Option<i64> {
    let text = text.trim();
    let (date, rest) = text.split_at_checked(10)?;
    let mut parts = date.split('-');
    let mut part = || parts.next().and_then(number);
    let (year, month, day) = (part()?, part()?, part()?);
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) {
        return None;
    }
    let start_ms = days_before(year, month, day) * DAY_MS;
    let rest = rest.trim_start_matches(['T', 't', ' ']);
    if rest.is_empty() {
        return Some(start_ms);
    }
    let zone_at = rest.find(['Z', 'z', '+', '-', ' ']).unwrap_or(rest.len());
    let (time, zone) = rest.split_at(zone_at);
    Some(start_ms + time_ms(time)? - offset_ms(zone.trim())?)
}

fn number(text: &str) -> Option<i64> {
    let is_plain = !text.is_empty() && text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain)
}

fn time_ms(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, ':');
    let (hour, minute) = (number(parts.next()?)?, number(parts.next()?)?);
    let (second, fraction) =
        parts.next().map_or(("0", ""), |s| s.split_once('.').unwrap_or((s, "")));
    let second = number(second)?;
    let ms = match fraction.get(..3.min(fraction.len())) {
        Some(digits) if !digits.is_empty() => number(&format!("{digits:0<3}"))?,
        _ => 0,
    };
    let fits = hour < 24 && minute < 60 && second <= 60;
    fits.then_some(((hour * 60 + minute) * 60 + second.min(59)) * 1_000 + ms)
}

fn offset_ms(text: &str) -> Option<i64> {
    let sign = match text.as_bytes().first() {
        None | Some(b'Z' | b'z') => return (text.len() <= 1).then_some(0),
        Some(b'+') => 1,
        Some(b'-') => -1,
        Some(_) => return None,
    };
    let digits: String = text[1..].chars().filter(|c| *c != ':').collect();
    let (hours, minutes) = digits.split_at_checked(2)?;
    let minutes = if minutes.is_empty() { 0 } else { number(minutes)? };
    let hours = number(hours)?;
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes) * 60_000)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_in_the_ways_that_files_write_them() {
        let noon = Some(1_738_324_800_000);
        for text in [
            "2025-01-31T12:00:00Z",
            "2025-01-31 12:00",
            "2025-01-31T14:00:00.000+02:00",
            "2025-01-31 05:00:00 -0700",
            " 2025-01-31 12:00:00 ",
        ] {
            assert_eq!(parse(text), noon, "{text}");
        }
        assert_eq!(parse("2025-01-31"), Some(1_738_281_600_000));
        assert_eq!(parse("1970-01-01T00:00:00.25Z"), Some(250));
    }

    #[test]
    fn what_is_no_date_is_told() {
        for text in [
            "",
            "soon",
            "2025-02-30",
            "2025-13-01",
            "2025-01-31 25:00",
            "31-01-2025",
            "2025-01-31T12:00 CET",
            "é025-01-31",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
