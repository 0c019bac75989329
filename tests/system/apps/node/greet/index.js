module.exports = (marker) => `release ${marker}\n`;
