// One switch for the code of a notebook: folded at first, and on every page as the reader left it.
document.addEventListener('DOMContentLoaded', function () {
  const cells = [...document.querySelectorAll('.tag_course-code details.hide')];
  if (!cells.length) return;
  const KEY = 'course-code', button = document.createElement('button');
  const remembered = function () {
    try { return localStorage.getItem(KEY); } catch (refused) { return null; } // as some browsers do for files
  };
  const remember = function (value) {
    try { localStorage.setItem(KEY, value); } catch (refused) { /* then for this page only */ }
  };
  const show = function (all) {
    cells.forEach(cell => { cell.open = all; });
    button.setAttribute('aria-pressed', String(all));
    button.textContent = all ? 'Fold code' : 'Show code';
  };
  button.type = 'button';
  button.className = 'course-switch';
  button.title = 'All code of the notebooks; a single cell opens by itself';
  button.addEventListener('click', function () {
    const all = button.getAttribute('aria-pressed') !== 'true';
    show(all);
    remember(all ? 'shown' : 'folded');
  });
  show(remembered() === 'shown');
  document.querySelector('.article-header-buttons').prepend(button);
});
