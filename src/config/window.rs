//! The times of a week at which something may be done: `Mon..Fri 09:00-17:00`.

use std::fmt;
use std::str::FromStr;

/// In systemd's words (systemd.time(7), "Calendar Events").
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

const DAY: u16 = 24 * 60;

/// Days, and a span of each of them by the machine's own clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Monday first.
    days: [bool; 7],
    /// Minutes since midnight.
    from: u16,
    /// Not after `from`: on the next day.
    to: u16,
    /// As it was written.
    text: String,
}

impl Window {
    /// Whether a time is in it: the day of the week, Monday 0, and the minute since midnight.
    #[must_use]
    pub fn contains(&self, day: usize, minute: u16) -> bool {
        let on = |day: usize| self.days[day % 7];
        if self.from < self.to {
            return on(day) && (self.from..self.to).contains(&minute);
        }
        (on(day) && minute >= self.from) || (on(day + 6) && minute < self.to)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// It is no window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "write days, a space and a span of the day: `Mon..Fri 09:00-17:00`, `Sat,Sun 22:00-04:00`, or `08:00-20:00` for every day"
)]
pub struct NoWindow;

impl FromStr for Window {
    type Err = NoWindow;

    fn from_str(text: &str) -> Result<Self, NoWindow> {
        let (days, span) = text.split_once(' ').unwrap_or(("Mon..Sun", text));
        let (from, to) = span.split_once('-').ok_or(NoWindow)?;
        let (from, to) = (minute(from)?, minute(to)?);
        if from == DAY {
            return Err(NoWindow);
        }
        Ok(Self {
            days: self::days(days)?,
            from,
            to,
            text: text.to_owned(),
        })
    }
}

fn days(text: &str) -> Result<[bool; 7], NoWindow> {
    let day = |name: &str| DAYS.iter().position(|day| *day == name).ok_or(NoWindow);
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once("..").unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        // `Sat..Mon` goes around the end of the week.
        let many = (last + 7 - first) % 7;
        (0..=many).for_each(|next| days[(first + next) % 7] = true);
    }
    Ok(days)
}

/// `09:00`, `24:00`.
fn minute(text: &str) -> Result<u16, NoWindow> {
    let (hours, minutes) = text.split_once(':').ok_or(NoWindow)?;
    let number =
        |digits: &str| match digits.len() == 2 && digits.bytes().all(|it| it.is_ascii_digit()) {
            true => digits.parse::<u16>().map_err(|_| NoWindow),
            false => Err(NoWindow),
        };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let minute = hours * 60 + minutes;
    match minutes < 60 && minute <= DAY {
        true => Ok(minute),
        false => Err(NoWindow),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_of_some_days_and_a_part_of_each() {
        let open = |window: &str, day: &str, hour: u16, minute: u16| {
            let day = DAYS.iter().position(|it| *it == day).unwrap();
            let window: Window = window.parse().unwrap();
            window.contains(day, hour * 60 + minute)
        };
        for (window, day, hour, minute, expected) in [
            ("Mon..Fri 09:00-17:00", "Mon", 9, 0, true),
            ("Mon..Fri 09:00-17:00", "Fri", 16, 59, true),
            ("Mon..Fri 09:00-17:00", "Fri", 17, 0, false),
            ("Mon..Fri 09:00-17:00", "Fri", 8, 59, false),
            ("Mon..Fri 09:00-17:00", "Sat", 12, 0, false),
            ("Mon,Wed 09:00-17:00", "Tue", 12, 0, false),
            ("Mon,Wed 09:00-17:00", "Wed", 12, 0, true),
            ("Sat..Mon 00:00-24:00", "Sun", 23, 59, true),
            ("Sat..Mon 00:00-24:00", "Mon", 0, 0, true),
            ("Sat..Mon 00:00-24:00", "Tue", 0, 0, false),
            ("08:00-20:00", "Sun", 19, 59, true),
            ("Fri 22:00-04:00", "Fri", 22, 0, true),
            ("Fri 22:00-04:00", "Sat", 3, 59, true),
            ("Fri 22:00-04:00", "Sat", 4, 0, false),
            ("Fri 22:00-04:00", "Sat", 22, 0, false),
            ("Fri 22:00-04:00", "Fri", 3, 0, false),
            ("Sun 22:00-04:00", "Mon", 3, 0, true),
        ] {
            assert_eq!(
                open(window, day, hour, minute),
                expected,
                "{window} {day} {hour}:{minute}"
            );
        }
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for text in [
            "",
            "Mon",
            "Mon..Fri",
            "Mon-Fri 09:00-17:00",
            "mon 09:00-17:00",
            "Mon 9:00-17:00",
            "Mon 09:00",
            "Mon 09:60-10:00",
            "Mon 09:00-24:01",
            "Mon 24:00-09:00",
            "Mon  09:00-10:00",
            "Mon, 09:00-10:00",
        ] {
            assert_eq!(text.parse::<Window>(), Err(NoWindow), "{text:?}");
        }
    }
}
