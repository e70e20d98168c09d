(function () {
  const here = document.currentScript;
  const root = (here && here.closest('.course-widget')) || document.getElementById('ROOT');
  const frames = FRAMES, labels = LABELS, alt = ALT;
  const find = name => root.querySelector('.course-' + name);
  const image = find('frame'), slider = find('stepper'), label = find('label'), play = find('play');
  let timer = null;
  function show(step) {
    image.src = frames[step];
    image.alt = alt + ' Now at ' + labels[step] + '.';
    label.textContent = labels[step];
    slider.value = step;
    slider.setAttribute('aria-valuetext', labels[step]);
  }
  function pause() {
    clearInterval(timer);
    timer = null;
    play.textContent = '\u25B6 Play';
  }
  function start() {
    if (+slider.value >= frames.length - 1) show(0);
    play.textContent = '\u23F8 Pause';
    timer = setInterval(function () {
      if (+slider.value >= frames.length - 1 || !root.isConnected) pause();
      else show(+slider.value + 1);
    }, INTERVAL);
  }
  slider.addEventListener('input', function () { pause(); show(+slider.value); });
  play.addEventListener('click', function () { if (timer) pause(); else start(); });
  show(+slider.value);
  find('controls').hidden = false;
  find('still').hidden = true;
})();
