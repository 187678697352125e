u2edge calibrate models/reference --data ../shared/speech/digits-human --data ../shared/speech/sentences-human --limit 400 --dither 1 --threads 2 -o models/reference/calibration.profile --restart
