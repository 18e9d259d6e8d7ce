// Periods of a chart (spec 05 §6.1): [constant, text, points, "minute" | "hour" | "day" | "live"]. The first letters of each
// group are what a chart offers first; the older names are there for charts that have them.
import { t } from "./i18n.js";

export const PERIODS = () => [
  ["LIVE", t("Live"), 60, "live"], ["FIFTEEN_MINUTES", t("15 min"), 15, "minute"], ["THIRTY_MINUTES", t("30 min"), 30, "minute"], ["ONE_HOUR", t("1 h"), 60, "minute"],
  ["THREE_HOURS", t("3 h"), 180, "minute"], ["SIX_HOURS", t("6 h"), 360, "minute"], ["TWELVE_HOURS", t("12 h"), 720, "minute"], ["DAY", t("1 day"), 1440, "minute"],
  ["N_DAY", t("1 day, hourly"), 24, "hour"], ["TWO_DAYS", t("2 days"), 48, "hour"], ["N_THREE_DAYS", t("3 days"), 72, "hour"], ["WEEK", t("1 week, hourly"), 168, "hour"],
  ["N_WEEK", t("1 week"), 7, "day"], ["N_TWO_WEEKS", t("2 weeks"), 14, "day"], ["N_MONTH", t("1 month"), 30, "day"], ["N_THREE_MONTHS", t("3 months"), 90, "day"],
  ["SIX_MONTHS", t("6 months"), 180, "day"], ["ONE_YEAR", t("1 year"), 360, "day"],
  ["THREE_DAYS", t("3 days"), 72, "hour"], ["TWO_WEEKS", t("2 weeks, hourly"), 336, "hour"], ["MONTH", t("1 month, hourly"), 720, "hour"], ["THREE_MONTHS", t("3 months, hourly"), 2160, "hour"], ["ALL", t("Everything"), 8640, "hour"],
];
